"""Which images there are: data sets, folders, labels of others."""
