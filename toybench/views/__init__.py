"""The app's pages: the only room that imports Streamlit and Altair. What they show is made elsewhere."""
