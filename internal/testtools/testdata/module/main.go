// Command module has a go.mod of its own.
package main

import "fmt"

func main() { fmt.Println("own module") }
