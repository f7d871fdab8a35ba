"""The app's pages: the only room that imports Streamlit and Altair. Widgets and figures; what they show is made elsewhere."""
