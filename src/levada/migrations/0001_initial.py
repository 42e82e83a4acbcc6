"""The tables Levada keeps in the source database."""

from django.db import migrations, models

import levada.outbox.models
from levada.outbox.operations import POSTGRESQL_REVERSE_SQL, POSTGRESQL_SQL, RunSQLOn


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Outbox",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("topic", models.CharField(default="changes", max_length=200)),
                ("label", models.CharField(blank=True, default="", max_length=200)),
                ("op", models.CharField(max_length=1)),
                ("key", models.TextField(null=True)),
                ("before", models.TextField(null=True)),
                ("after", models.TextField(null=True)),
                ("fingerprint", models.CharField(blank=True, default="", max_length=12)),
                (
                    "transaction",
                    models.BigIntegerField(
                        db_default=levada.outbox.models.CurrentTransaction(), null=True
                    ),
                ),
                ("changed_at", models.CharField(max_length=40)),
                ("context", models.TextField(null=True)),
            ],
            options={
                "verbose_name_plural": "outbox",
                "db_table": "levada_outbox",
            },
        ),
        migrations.CreateModel(
            name="RelayCursor",
            fields=[
                ("epoch", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("cursor", models.TextField()),
            ],
            options={
                "db_table": "levada_relay",
            },
        ),
        migrations.CreateModel(
            name="ReplicatedTable",
            fields=[
                ("label", models.CharField(max_length=200, primary_key=True, serialize=False)),
                ("fingerprint", models.CharField(max_length=12)),
                ("spec", models.TextField()),
                ("installed_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "db_table": "levada_table",
            },
        ),
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "consumer",
                    models.CharField(
                        help_text="A store's alias or a consumer group.", max_length=200
                    ),
                ),
                ("epoch", models.CharField(max_length=40)),
                ("topic", models.CharField(max_length=200)),
                ("offset", models.BigIntegerField()),
                ("label", models.CharField(blank=True, max_length=200)),
                ("key", models.TextField(blank=True)),
                ("record", models.TextField(help_text="The whole record, as JSON.")),
                ("reason", models.TextField()),
                ("tries", models.PositiveIntegerField(default=1)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "waiting"),
                            ("retried", "retried"),
                            ("dropped", "dropped"),
                        ],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("decided_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "db_table": "levada_dead_letter",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("consumer", "epoch", "topic", "offset"),
                        name="levada_dead_letter_once",
                    )
                ],
            },
        ),
        RunSQLOn("postgresql", POSTGRESQL_SQL, POSTGRESQL_REVERSE_SQL),
    ]
