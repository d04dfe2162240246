"""Views: one page of the dashboard each, laid out by `render()`."""
