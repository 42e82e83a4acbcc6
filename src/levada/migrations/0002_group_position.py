"""Where the handlers' consumer groups keep their positions."""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("levada", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="GroupPosition",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("group", models.CharField(max_length=200)),
                ("topic", models.CharField(max_length=200)),
                ("epoch", models.CharField(max_length=40)),
                ("offset", models.BigIntegerField()),
                ("tries", models.PositiveIntegerField(default=0)),
                ("reason", models.TextField(blank=True, default="")),
                ("moved_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "db_table": "levada_group_position",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("group", "topic"), name="levada_group_position_once"
                    )
                ],
            },
        ),
    ]
