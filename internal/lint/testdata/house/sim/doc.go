// Package sim has one order for one seed.
package sim

func run(m map[int]int) {
	for range m { // want order "random order"
	}
}
