"""World 2: streets with parametric bodies, vegetation, slopes, weather and light."""
