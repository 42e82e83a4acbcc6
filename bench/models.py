"""What the benchmarks write and query: sales, with the indexes a shop would have."""

from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=60)
    country = models.CharField(max_length=2)
    segment = models.CharField(max_length=12)

    class Meta:
        app_label = "bench"

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    name = models.CharField(max_length=60)
    category = models.CharField(max_length=20)

    class Meta:
        app_label = "bench"

    def __str__(self) -> str:
        return self.name


class Sale(models.Model):
    customer = models.ForeignKey(Customer, models.DO_NOTHING, db_constraint=False)
    product = models.ForeignKey(Product, models.DO_NOTHING, db_constraint=False)
    sold_at = models.DateTimeField(db_index=True)
    day = models.DateField()
    country = models.CharField(max_length=2)
    channel = models.CharField(max_length=10)
    quantity = models.IntegerField()
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    note = models.CharField(max_length=60)

    class Meta:
        app_label = "bench"
        indexes = [
            models.Index(fields=["country", "channel"], name="bench_country_channel"),
            models.Index(fields=["day"], name="bench_day"),
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.amount}"


class Event(models.Model):
    """Ten columns in a table that no replica has: for what the backend does by itself."""

    customer = models.BigIntegerField()
    product = models.BigIntegerField()
    sold_at = models.DateTimeField()
    day = models.DateField()
    country = models.CharField(max_length=2)
    channel = models.CharField(max_length=10)
    quantity = models.IntegerField()
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    note = models.CharField(max_length=60)

    class Meta:
        app_label = "bench"

    def __str__(self) -> str:
        return f"{self.pk} {self.amount}"
