"""Orders to begin with."""

from django.db import migrations

ORDERS = (
    ('Teapot, cast iron', 2, 'new'),
    ('Darjeeling, second flush', 6, 'new'),
    ('Espresso cups', 12, 'packed'),
    ('Paper filters', 4, 'packed'),
    ('Milk jug', 1, 'sent'),
)


def add_orders(apps, schema_editor):
    order = apps.get_model('showcase', 'Order')
    order.objects.bulk_create(
        order(item=item, quantity=quantity, state=state) for item, quantity, state in ORDERS
    )


class Migration(migrations.Migration):
    dependencies = [('showcase', '0001_initial')]

    operations = [migrations.RunPython(add_orders, migrations.RunPython.noop)]
