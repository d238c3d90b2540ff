package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOriginsAreToldApartByTheirForm(t *testing.T) {
	for _, c := range []struct {
		text string
		kind Kind
		want string // Text
		name string // without its eight digits, if it has them
	}{
		{"Qwen/Qwen3-0.6B", FromHub, "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"},
		{"gpt2", FromHub, "gpt2", "gpt2"},
		{"/models/My Model", FromFolder, "/models/My Model", "local/My-Model"},
		{"./a/../b", FromFolder, "/base/b", "local/b"},
		{"..", FromFolder, "/", "local/model"},
		{"file:///srv/x/", FromFolder, "/srv/x", "local/x"},
		{"HTTPS://Files.example.com:8443/models/a/", FromWeb, "https://Files.example.com:8443/models/a", "Files.example.com/a"},
		{"http://[::1]:80", FromWeb, "http://[::1]:80", "1/model"},
		{"s3://bucket/some/prefix.git", FromS3, "s3://bucket/some/prefix.git", "bucket/prefix.git"},
	} {
		got, err := ParseOrigin(c.text, "/base")
		if err != nil {
			t.Errorf("ParseOrigin(%q): %v", c.text, err)
			continue
		}
		name := got.Name
		if c.kind != FromHub {
			name = name[:len(name)-len("-01234567")]
		}
		if got.Kind != c.kind || got.Text != c.want || name != c.name {
			t.Errorf("ParseOrigin(%q) = %v %q %q, want %v %q %q", c.text, got.Kind, got.Text, got.Name, c.kind, c.want, c.name)
		}
		if err := CheckRepo(got.Name); err != nil {
			t.Errorf("ParseOrigin(%q): %v", c.text, err)
		}
	}
}

func TestOriginsThatShareABaseHaveTheirOwnNames(t *testing.T) {
	a, errA := ParseOrigin("/a/model", "/")
	b, errB := ParseOrigin("/b/model", "/")
	same, errC := ParseOrigin("/a/./model/", "/")
	if errA != nil || errB != nil || errC != nil {
		t.Fatal(errA, errB, errC)
	}
	if a.Name == b.Name {
		t.Errorf("both are called %s", a.Name)
	}
	if a != same {
		t.Errorf("one folder is %v and %v", a, same)
	}
}

func TestWrongOriginsAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "model name",
		"a/b/c":                   "begins with '/'",
		"org/../x":                "model name",
		"ftp://host/x":            "models come from",
		"file://x":                "absolute",
		"https://":                "no host",
		"https://me:secret@host/": "credentials",
		"https://host/x?token=s":  "query",
		"s3://bucket/x#y":         "fragment",
	} {
		o, err := ParseOrigin(text, "/base")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseOrigin(%q) = %v, %v; want an error with %q", text, o, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the credentials: %v", err)
		}
	}
}

func TestTheHubsSettingsComeFromItsClientsVariables(t *testing.T) {
	home := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("token", "hf_file\n")
	write("other", " hf_other\r\n")
	for _, c := range []struct {
		env             map[string]string
		token, endpoint string
		path            string
	}{
		{map[string]string{}, "", "", ""},
		{map[string]string{"HOME": "/home/me"}, "", "", "/home/me/.cache/huggingface/hub"},
		{map[string]string{"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}, "", "", "/cache/huggingface/hub"},
		{map[string]string{"HF_HOME": home, "HF_ENDPOINT": "http://hub/"}, "hf_file", "http://hub", home + "/hub"},
		{map[string]string{"HF_HOME": home, "HF_TOKEN": "hf_env\n", "HF_HUB_CACHE": "/c"}, "hf_env", "", "/c"},
		{map[string]string{"HF_HOME": home, "HF_TOKEN_PATH": filepath.Join(home, "other")}, "hf_other", "", home + "/hub"},
		{map[string]string{"HF_HOME": home, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, "", "", home + "/hub"},
	} {
		env := func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
		a, err := AccessFrom(env)
		if err != nil {
			t.Errorf("%v: %v", c.env, err)
		}
		if a.HubToken != c.token || a.HubEndpoint != c.endpoint {
			t.Errorf("%v: token %q, endpoint %q; want %q, %q", c.env, a.HubToken, a.HubEndpoint, c.token, c.endpoint)
		}
		if got := DefaultPath(env); got != c.path {
			t.Errorf("%v: path %q, want %q", c.env, got, c.path)
		}
	}
	_, err := AccessFrom(func(name string) (string, bool) { return home, name == "HF_TOKEN_PATH" })
	if err == nil {
		t.Error("a folder was read as a token")
	}
}
