// Command servicerequest runs the servicerequest service in a process of its own.
package main

import (
	_ "latchkey.dev/services/internal/bucket" // URLs of buckets, for photos and videos
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/servicerequest"
)

func main() { server.Main(server.Engines{"postgres": postgres.Open}, servicerequest.Part) }
