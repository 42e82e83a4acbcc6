from django.db import migrations, models

key = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Customer", fields=[("id", key), ("name", models.CharField(max_length=100))]
        ),
        migrations.CreateModel(
            name="Receipt", fields=[("id", key), ("order_id", models.BigIntegerField())]
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", key),
                ("total", models.DecimalField(decimal_places=2, max_digits=12)),
                ("customer", models.ForeignKey("shop.Customer", models.CASCADE)),
            ],
        ),
    ]
