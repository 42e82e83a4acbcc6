"""A shop: relations, cascades, many-to-many, inheritance, composite keys and every field type."""

import uuid

from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True, default="")
    password = models.CharField(max_length=100, blank=True, default="")
    country = models.CharField(max_length=2, blank=True, default="")
    created_at = models.DateTimeField(null=True, blank=True)

    def __str__(self):
        return self.name


class Tag(models.Model):
    name = models.CharField(max_length=50, unique=True)

    def __str__(self):
        return self.name


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    number = models.UUIDField(default=uuid.uuid4, unique=True)
    country = models.CharField(max_length=2, default="PT")
    total = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    placed_at = models.DateTimeField(null=True, blank=True)
    tags = models.ManyToManyField(Tag, blank=True)

    def __str__(self):
        return str(self.number)


class OrderLine(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    sku = models.CharField(max_length=40)
    quantity = models.PositiveIntegerField(default=1)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)

    def __str__(self):
        return self.sku


class Product(models.Model):
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)

    def __str__(self):
        return self.name


class Book(Product):
    """Multi-table inheritance: its row lives in two tables."""

    isbn = models.CharField(max_length=20)
    pages = models.IntegerField(default=0)


class Seat(models.Model):
    """A composite primary key."""

    pk = models.CompositePrimaryKey("row", "number")
    row = models.CharField(max_length=2)
    number = models.IntegerField()
    taken = models.BooleanField(default=False)

    def __str__(self):
        return f"{self.row}{self.number}"


class Everything(models.Model):
    """One column of every type Django has, each nullable."""

    big = models.BigIntegerField(null=True)
    small = models.SmallIntegerField(null=True)
    integer = models.IntegerField(null=True)
    positive = models.PositiveBigIntegerField(null=True)
    flag = models.BooleanField(null=True)
    real = models.FloatField(null=True)
    price = models.DecimalField(max_digits=15, decimal_places=4, null=True)
    char = models.CharField(max_length=200, null=True)  # noqa: DJ001
    text = models.TextField(null=True)  # noqa: DJ001
    slug = models.SlugField(null=True)  # noqa: DJ001
    url = models.URLField(null=True)  # noqa: DJ001
    ip = models.GenericIPAddressField(null=True)
    file = models.FileField(null=True)
    day = models.DateField(null=True)
    clock = models.TimeField(null=True)
    moment = models.DateTimeField(null=True)
    span = models.DurationField(null=True)
    ident = models.UUIDField(null=True)
    blob = models.BinaryField(null=True)
    data = models.JSONField(null=True)

    def __str__(self):
        return str(self.pk)
