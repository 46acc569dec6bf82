"""Cases: the kinds of case, their JSON form, and cases kept from earlier runs."""
