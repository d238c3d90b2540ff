package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// DefaultPath is where the hub's own client keeps models, by the same variables (huggingface_hub, constants.py): HF_HUB_CACHE, else
// HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else HOME/.cache/huggingface/hub. "" where none of them is set.
func DefaultPath(env func(string) (string, bool)) string {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if path := lookup(env, name); path != "" {
			return path
		}
	}
	if home := hubHome(env); home != "" {
		return filepath.Join(home, "hub")
	}
	return ""
}

func hubHome(env func(string) (string, bool)) string {
	if home := lookup(env, "HF_HOME"); home != "" {
		return home
	}
	if cache := lookup(env, "XDG_CACHE_HOME"); cache != "" {
		return filepath.Join(cache, "huggingface")
	}
	if home := lookup(env, "HOME"); home != "" {
		return filepath.Join(home, ".cache", "huggingface")
	}
	return ""
}

// AccessFrom reads the variables of the hub's own client: HF_ENDPOINT; the token of HF_TOKEN, else of the file HF_TOKEN_PATH, else of the
// file "token" in HF_HOME, which `hf auth login` writes, unless HF_HUB_DISABLE_IMPLICIT_TOKEN says that only a named one counts. A missing
// file is no error.
func AccessFrom(env func(string) (string, bool)) (Access, error) {
	a := Access{HubEndpoint: strings.TrimRight(lookup(env, "HF_ENDPOINT"), "/"), Env: env}
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if a.HubToken = cleanToken(lookup(env, name)); a.HubToken != "" {
			return a, nil
		}
	}
	switch strings.ToUpper(lookup(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
	case "1", "ON", "YES", "TRUE":
		return a, nil
	}
	file := lookup(env, "HF_TOKEN_PATH")
	if home := hubHome(env); file == "" && home != "" {
		file = filepath.Join(home, "token")
	}
	if file == "" {
		return a, nil
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, fmt.Errorf("reading the hub's token: %w", err)
	}
	a.HubToken = cleanToken(string(text))
	return a, nil
}

// cleanToken drops the line ends that shells and editors leave, as the hub's client does.
func cleanToken(s string) string {
	return strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(s))
}

func lookup(env func(string) (string, bool), name string) string {
	if env == nil {
		return ""
	}
	if value, ok := env(name); ok {
		return value
	}
	return ""
}
