package storage

import "os"

// Engine is what others import.
var Engine = os.Args

func wait(m map[int]int) {
	go func() {}()
	for range m {
	}
}
