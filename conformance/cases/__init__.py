"""Cases: a call to hold against the reference, its JSON form, and cases kept from earlier runs."""
