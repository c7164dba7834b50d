"""The events view of the page: what an events file holds, asked in threads so that neither the server nor the writer waits."""
