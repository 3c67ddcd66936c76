"""What the search page is made of, without Streamlit: its words, its cards, its index and encoder, its health."""
