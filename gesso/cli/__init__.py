"""One module for each verb of `gesso`; none imports anything heavy before it runs."""
