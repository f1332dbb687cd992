// Command scheduling runs the service scheduling in a process of its own.
package main

import (
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/scheduling"
)

func main() { server.Main(server.Engines{"postgres": postgres.Open}, scheduling.Part) }
