"""Which products are formed, and how the band is read off them."""
