"""`risk book`: runs book_service, shows a book, rebuilds one from the log, checks an audit log."""
