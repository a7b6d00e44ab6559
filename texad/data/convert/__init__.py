"""Labels of others, brought into MVTec AD's layout."""
