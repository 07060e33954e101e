//go:build !race

package client_test

const allocationsMax = 9
