"""What a target is: its checks, its loss, its predictions and its linear probe."""
