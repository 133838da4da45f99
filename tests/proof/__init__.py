"""What `make proof` needs: tests at full size, what they have seen, and the page that says so."""
