"""What hpcdl knows of computing centres: one TOML file per site, each value with its source and date."""
