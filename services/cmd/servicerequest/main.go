// Command servicerequest runs the servicerequest service in a process of its own.
package main

import (
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/servicerequest"
)

func main() { server.Main(server.Engines{"postgres": postgres.Open}, servicerequest.Part) }
