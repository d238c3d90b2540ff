package s3

import (
	"context"
	"fmt"

	"pilotlight/backends/store"
)

// Open is for store.Access: the source of an origin s3://…, reached as a.Env says.
func Open(o store.Origin, a store.Access) (store.Opened, error) {
	// Finding credentials may ask a service of this machine's, for two seconds at most.
	return open(context.Background(), o.Raw(), a.Env, a.Connections)
}

func open(ctx context.Context, address string, env func(string) (string, bool), connections int) (*Bucket, error) {
	location, err := ParseLocation(address)
	if err != nil {
		return nil, err
	}
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	settings, err := ReadSettings(ctx, env)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", location, err)
	}
	return New(Options{Location: location, Settings: settings, Connections: connections})
}
