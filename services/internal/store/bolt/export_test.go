package bolt

// Hurried returns options with which the log changes its halves all the while.
func Hurried(o Options, records int) Options {
	o.records = records
	return o
}

// Narrow returns options with which the file has little address space at first.
func Narrow(o Options, bytes int) Options {
	o.mapped, o.room = bytes, bytes/2
	return o
}
