"""The pages that show what the package can do."""

from django.urls import path

from showcase import views

urlpatterns = [
    path('', views.overview, name='index'),
    path('room/', views.room, {'name': 'lobby'}, name='room'),
    path('room/<slug:name>/', views.room, name='room'),
    path('stream/', views.room, {'name': 'lobby', 'transport': 'event-stream'}, name='stream'),
    path('tasks/', views.task_list, name='tasks'),
    path('tasks/rows/', views.task_rows, name='task-rows'),
    path('orders/', views.order_list, name='orders'),
    path('orders/table/', views.order_table, name='order-table'),
    path('orders/<int:pk>/<slug:change>/', views.change_order, name='change-order'),
    path('notifications/', views.notifications, name='notifications'),
    path('notifications/list/', views.notification_list, name='notification-list'),
    path('tokens/', views.tokens, name='tokens'),
    path('tokens/new/', views.new_token, name='new-token'),
    path('break/', views.break_it, name='break'),
    path('break/<slug:way>/', views.break_something, name='break-something'),
]
