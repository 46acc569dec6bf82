"""The scaffold behind ``moe-routing new-adapter``."""
