package scheduling

// OnRequestCancelled lets a test handle an event before it would have come.
var OnRequestCancelled = onRequestCancelled
