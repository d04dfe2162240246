"""Reports that leave the dashboard: one HTML file, tables for other programs, pictures."""
