"""`python -m benchmarks.race`; `benchmarks/race/race.py` says what it does."""

# Its functions travel to other processes, which find none in a `__main__`.
from benchmarks.race import race

if __name__ == '__main__':
  race.main()
