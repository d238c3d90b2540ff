package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pilotlight/internal/config"
)

// adminFlags say where a running gateway's admin listener is.
type adminFlags struct{ file, url, token string }

func (f *adminFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.file, "config", "c", "", "the gateway's configuration `FILE`, for its admin address and token")
	c.Flags().StringVar(&f.url, "admin", "", "the admin listener's `URL` (default http://127.0.0.1:9000)")
	c.Flags().StringVar(&f.token, "token", "", "the admin token (default: the configuration's, or PILOTLIGHT_ADMIN_TOKEN)")
}

// ask sends one request. It returns the listener's URL and its answer's body.
func (f *adminFlags) ask(ctx context.Context, method, path string) (url string, body []byte, err error) {
	url, token := f.url, f.token
	switch {
	case f.file != "" && url != "":
		return "", nil, usageError{errors.New("give --config or --admin, not both")}
	case f.file != "":
		conf, err := config.Load(f.file, os.LookupEnv)
		if err != nil {
			return "", nil, usageError{err}
		}
		url = "http://" + conf.Admin.Listen
		if token == "" {
			token = conf.Admin.Token
		}
	case url == "":
		url = "http://127.0.0.1:9000"
	}
	url = strings.TrimSuffix(url, "/")
	if token == "" {
		token = os.Getenv("PILOTLIGHT_ADMIN_TOKEN")
	}
	req, err := http.NewRequestWithContext(ctx, method, url+path, nil)
	if err != nil {
		return "", nil, usageError{fmt.Errorf("--admin: %w", err)}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return "", nil, fmt.Errorf("no gateway answers: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	if body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20)); err != nil {
		return "", nil, fmt.Errorf("reading the answer: %w", err)
	}
	switch {
	case resp.StatusCode/100 == 2:
		return url, body, nil
	case resp.StatusCode == http.StatusUnauthorized:
		return "", nil, errors.New("the admin listener asks for its token: --token, or PILOTLIGHT_ADMIN_TOKEN")
	}
	var told struct {
		Error struct{ Message string } `json:"error"`
	}
	if err := json.Unmarshal(body, &told); err == nil && told.Error.Message != "" {
		return "", nil, errors.New(told.Error.Message)
	}
	return "", nil, fmt.Errorf("%s answered %s", url, resp.Status)
}
