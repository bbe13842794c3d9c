"""Reports as one HTML file each: pictures inside, no script, nothing from the network."""
