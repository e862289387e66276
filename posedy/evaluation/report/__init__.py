"""One HTML file that says what an AP is made of."""
