"""What the pages sell."""

from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self):
        return self.name


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    total = models.DecimalField(max_digits=12, decimal_places=2)

    def __str__(self):
        return f"{self.customer}: {self.total}"


class Receipt(models.Model):
    order_id = models.BigIntegerField()

    def __str__(self):
        return str(self.order_id)
