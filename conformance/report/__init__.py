"""Writers: they turn the engine's events and results into what a person or a tool reads."""
