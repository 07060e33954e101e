//go:build !planted

package sim

// plant plants a bug, which this build cannot.
func plant(bug string) {
	if bug != "" {
		panic("planted bugs take the build tag planted")
	}
}

// runPlanted says so.
func runPlanted() int {
	plant("any")
	return 2
}
