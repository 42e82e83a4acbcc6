"""Addresses of the page and of what it asks for."""

from django.urls import path

from . import views

app_name = "channel"
urlpatterns = [
    path("", views.page, name="page"),
    path("events/", views.write_event, name="write-event"),
    path("race/<slug:slug>/", views.race, name="race"),
    path("replica/<slug:work>/", views.work, name="work"),
    path("stream/", views.live, name="stream"),
]
