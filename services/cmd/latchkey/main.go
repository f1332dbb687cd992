// Latchkey runs all five services in one process.
package main

import (
	"latchkey.dev/services/demo"
	"latchkey.dev/services/identity"
	_ "latchkey.dev/services/internal/bucket" // URLs of buckets
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/invoicing"
	"latchkey.dev/services/permissions"
	"latchkey.dev/services/scheduling"
	"latchkey.dev/services/servicerequest"
)

func main() {
	server.Main(server.Engines{"postgres": postgres.Open}, identity.Part, permissions.Part, servicerequest.Part, scheduling.Part, invoicing.Part, demo.Part)
}
