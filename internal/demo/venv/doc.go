// Package venv makes private Python environments from pinned requirements, each in a folder of its own below a
// cache folder. It never touches the Python that it finds: nothing is installed outside that folder, and the
// settings that would make pip do so are left out of its environment.
//
// An environment is finished once its marker file exists, which is written last. Whatever a break leaves behind
// is thrown away and made anew; wheels that were downloaded whole are kept for that. Ensure may be called by
// any number of goroutines and processes at once: a file lock makes one of them work and the others wait.
package venv
