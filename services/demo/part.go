package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"latchkey.dev/services/internal/server"
)

// Part fills in the company when the process was started with --demo on an empty
// store, and prints how to sign in. It serves nothing.
var Part = server.Part{Name: "demo", Start: start}

func start(env *server.Env) error {
	if !env.Demo {
		return nil
	}
	env.Go("fill", func(ctx context.Context) error {
		select {
		case <-env.Serving:
		case <-ctx.Done():
			return nil
		}
		company, err := Fill(ctx, env.Public, env.BootstrapCode)
		switch {
		case errors.Is(err, context.Canceled):
			return nil
		case status.Code(err) == codes.FailedPrecondition:
			env.Log.Info("the suite has an owner already: no demonstration data was added, and the passwords were printed when it was")
			return nil
		case err != nil:
			return fmt.Errorf("fill in the demonstration data: %w", err)
		}
		company.Print(os.Stdout, env.Addr)
		return nil
	})
	return nil
}

// Print tells a person how to sign in as everybody.
func (c *Company) Print(out io.Writer, addr string) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s is ready at %s. Its people, and passwords that are shown this once:\n\n", c.Name, addr)
	for _, u := range c.People {
		fmt.Fprintf(&b, "  %-4s %-15s %-26s %s\n", u.Role, u.Name, u.Email, u.Password)
	}
	fmt.Fprintf(&b, "\nFor the tour in the README, paste these lines into a second terminal:\n\n")
	fmt.Fprintf(&b, "  export LATCHKEY=%s\n", addr)
	for _, role := range []string{"OW", "PM", "SP"} {
		fmt.Fprintf(&b, "  export %s_PASSWORD=%s\n", role, c.Person(role).Password)
	}
	fmt.Fprintln(&b)
	io.WriteString(out, b.String())
}
