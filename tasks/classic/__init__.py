"""Classic control: cart-poles, a ball on a table, a quadcopter."""
