"""What is fetched from the web: names, addresses, hashes, and the downloader."""
