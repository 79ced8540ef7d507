"""Families of functions for text_code.py: each makes (name, parameters, returns, task, body) from a random generator.

`task` completes the sentence "a function that ..."; its first word is a verb in the third person.
"""

NUMBER_LISTS = ["numbers", "values", "nums", "items", "data"]
WORD_LISTS = ["words", "names", "strings", "texts"]
TEXTS = ["text", "s", "string", "word", "line"]

# (name part, phrase, condition on x, extra parameter)
NUMBER_FILTERS = [
    ("even", "even numbers", "{x} % 2 == 0", None), ("odd", "odd numbers", "{x} % 2 == 1", None),
    ("positive", "positive numbers", "{x} > 0", None), ("negative", "negative numbers", "{x} < 0", None),
    ("nonzero", "numbers that are not zero", "{x} != 0", None),
    ("large", "numbers above a limit", "{x} > limit", ("limit", "int")),
    ("small", "numbers below a limit", "{x} < limit", ("limit", "int")),
    ("divisible", "numbers divisible by n", "{x} % n == 0", ("n", "int")),
    ("two_digit", "numbers with two digits", "10 <= {x} <= 99", None),
]
NUMBER_MAPS = [
    ("", "", "{x}"), ("squares", "squares", "{x} * {x}"), ("cubes", "cubes", "{x} ** 3"), ("doubles", "doubles", "2 * {x}"),
    ("halves", "halves", "{x} / 2"), ("absolute_values", "absolute values", "abs({x})"), ("negatives", "negatives", "-{x}"),
    ("successors", "successors", "{x} + 1"),
]
WORD_FILTERS = [
    ("long", "words longer than n", "len({x}) > n", ("n", "int")), ("short", "words shorter than n", "len({x}) < n", ("n", "int")),
    ("uppercase", "uppercase words", "{x}.isupper()", None), ("lowercase", "lowercase words", "{x}.islower()", None),
    ("nonempty", "words that are not empty", "{x}", None), ("numeric", "words made of digits", "{x}.isdigit()", None),
    ("capitalized", "capitalized words", "{x}[:1].isupper()", None),
    ("prefixed", "words that start with a prefix", "{x}.startswith(prefix)", ("prefix", "str")),
    ("suffixed", "words that end with a suffix", "{x}.endswith(suffix)", ("suffix", "str")),
    ("containing", "words that contain a letter", "letter in {x}", ("letter", "str")),
]
WORD_MAPS = [
    ("", "", "{x}", "str"), ("lengths", "lengths", "len({x})", "int"), ("upper", "uppercase forms", "{x}.upper()", "str"),
    ("lower", "lowercase forms", "{x}.lower()", "str"), ("initials", "first letters", "{x}[:1]", "str"),
    ("reversed", "reversed forms", "{x}[::-1]", "str"), ("stripped", "stripped forms", "{x}.strip()", "str"),
]
CHAR_FILTERS = [
    ("vowels", "vowels", "{x} in \"aeiou\""), ("digits", "digits", "{x}.isdigit()"), ("letters", "letters", "{x}.isalpha()"),
    ("spaces", "spaces", "{x} == \" \""), ("uppercase_letters", "uppercase letters", "{x}.isupper()"),
    ("lowercase_letters", "lowercase letters", "{x}.islower()"), ("commas", "commas", "{x} == \",\""),
    ("dots", "dots", "{x} == \".\""), ("consonants", "consonants", "{x}.isalpha() and {x} not in \"aeiou\""),
]
CONVERSIONS = [
    ("celsius", "fahrenheit", "{x} * 9 / 5 + 32"), ("fahrenheit", "celsius", "({x} - 32) * 5 / 9"),
    ("celsius", "kelvin", "{x} + 273.15"), ("kelvin", "celsius", "{x} - 273.15"), ("minutes", "seconds", "{x} * 60"),
    ("hours", "minutes", "{x} * 60"), ("hours", "seconds", "{x} * 3600"), ("days", "hours", "{x} * 24"),
    ("seconds", "minutes", "{x} / 60"), ("weeks", "days", "{x} * 7"), ("miles", "kilometers", "{x} * 1.609344"),
    ("kilometers", "miles", "{x} / 1.609344"), ("meters", "feet", "{x} * 3.28084"), ("inches", "centimeters", "{x} * 2.54"),
    ("centimeters", "inches", "{x} / 2.54"), ("kilograms", "pounds", "{x} * 2.20462"), ("pounds", "kilograms", "{x} / 2.20462"),
    ("kilograms", "grams", "{x} * 1000"), ("grams", "kilograms", "{x} / 1000"), ("degrees", "radians", "{x} * 3.14159265 / 180"),
    ("meters", "kilometers", "{x} / 1000"), ("bytes", "kilobytes", "{x} / 1024"), ("bytes", "bits", "{x} * 8"),
]
SHAPES = [
    ("area", "rectangle", ["width", "height"], "width * height"), ("area", "square", ["side"], "side * side"),
    ("area", "circle", ["radius"], "3.14159265 * radius * radius"), ("area", "triangle", ["base", "height"], "base * height / 2"),
    ("perimeter", "rectangle", ["width", "height"], "2 * (width + height)"), ("perimeter", "square", ["side"], "4 * side"),
    ("perimeter", "circle", ["radius"], "2 * 3.14159265 * radius"), ("perimeter", "triangle", ["a", "b", "c"], "a + b + c"),
    ("volume", "cube", ["side"], "side ** 3"), ("volume", "box", ["width", "height", "depth"], "width * height * depth"),
    ("volume", "sphere", ["radius"], "4 / 3 * 3.14159265 * radius ** 3"),
    ("volume", "cylinder", ["radius", "height"], "3.14159265 * radius * radius * height"),
]
PAIRS = [("a", "b"), ("x", "y"), ("first", "second"), ("left", "right")]
# (name, task, expression)
BINARY = [
    (["add", "add_numbers"], "adds two numbers", "{a} + {b}"), (["subtract"], "subtracts one number from another", "{a} - {b}"),
    (["multiply", "product"], "multiplies two numbers", "{a} * {b}"), (["divide"], "divides one number by another", "{a} / {b}"),
    (["power"], "raises one number to the power of another", "{a} ** {b}"), (["average", "mean_of_two"], "returns the average of two "
     "numbers", "({a} + {b}) / 2"), (["maximum", "larger"], "returns the larger of two numbers", "{a} if {a} > {b} else {b}"),
    (["minimum", "smaller"], "returns the smaller of two numbers", "{a} if {a} < {b} else {b}"),
    (["difference", "distance"], "returns the absolute difference of two numbers", "abs({a} - {b})"),
    (["remainder", "modulo"], "returns the remainder of a division", "{a} % {b}"),
    (["is_multiple", "is_divisible"], "checks whether one number is a multiple of another", "{a} % {b} == 0"),
    (["are_equal"], "checks whether two numbers are equal", "{a} == {b}"),
    (["sum_of_squares"], "returns the sum of the squares of two numbers", "{a} * {a} + {b} * {b}"),
    (["hypotenuse"], "returns the hypotenuse of a right triangle", "({a} * {a} + {b} * {b}) ** 0.5"),
]
UNARY = [
    (["square"], "returns the square of a number", "{x} * {x}"), (["cube"], "returns the cube of a number", "{x} ** 3"),
    (["double", "twice"], "doubles a number", "2 * {x}"), (["half"], "returns half of a number", "{x} / 2"),
    (["negate"], "negates a number", "-{x}"), (["increment"], "returns a number plus one", "{x} + 1"),
    (["is_even"], "checks whether a number is even", "{x} % 2 == 0"), (["is_odd"], "checks whether a number is odd", "{x} % 2 == 1"),
    (["is_positive"], "checks whether a number is positive", "{x} > 0"), (["is_zero"], "checks whether a number is zero", "{x} == 0"),
    (["is_negative"], "checks whether a number is negative", "{x} < 0"),
    (["absolute", "absolute_value"], "returns the absolute value of a number", "{x} if {x} >= 0 else -{x}"),
    (["square_root"], "returns the square root of a number", "{x} ** 0.5"),
    (["last_digit"], "returns the last digit of a number", "{x} % 10"),
    (["sum_to"], "returns the sum of the numbers up to a number", "{x} * ({x} + 1) // 2"),
    (["is_leap_year"], "checks whether a year is a leap year", "{x} % 4 == 0 and ({x} % 100 != 0 or {x} % 400 == 0)"),
]


def reduce_numbers(rng):
    data, x = rng.choice(NUMBER_LISTS), rng.choice(["n", "x", "value", "number"])
    fname, fphrase, cond, extra = rng.choice(NUMBER_FILTERS + [("", "numbers", "", None)] * 3)
    if extra and extra[0] == x:
        x = "x"
    mname, mphrase, expr = rng.choice(NUMBER_MAPS + NUMBER_MAPS[:1] * 3)
    cond, expr = cond.format(x=x), expr.format(x=x)
    of_what = f"the {mphrase} of the {fphrase}" if mphrase else f"the {fphrase}"
    core = "_".join(part for part in ([mname, "of"] if mname and fname else [mname]) + [fname] if part) or "numbers"
    params, op = [(data, "list[int]")] + ([extra] if extra else []), rng.choice(["sum", "product", "max", "min", "count", "list", "any"])
    where = f" if {cond}" if cond else ""
    guard = [f"    if {cond}:"] if cond else []
    pad = "        " if cond else "    "
    loop = rng.random() < 0.45
    if op == "sum":
        body = (["total = 0", f"for {x} in {data}:"] + guard + [f"{pad}total += {expr}", "return total"] if loop
                else [f"return sum({expr} for {x} in {data}{where})"])
        return f"sum_of_{core}", params, "int", f"returns the sum of {of_what} in a list", body
    if op == "product":
        body = ["result = 1", f"for {x} in {data}:"] + guard + [f"{pad}result *= {expr}", "return result"]
        return f"product_of_{core}", params, "int", f"returns the product of {of_what} in a list", body
    if op in ("max", "min"):
        word = {"max": "largest", "min": "smallest"}[op]
        body = [f"return {op}({expr} for {x} in {data}{where})"] if cond or mname else [f"return {op}({data})"]
        if rng.random() < 0.3 and body[0] != f"return {op}({data})":
            body = [f"return {op}(({expr} for {x} in {data}{where}), default=0)"]
        return f"{word}_of_{core}", params, "int", f"returns the {word} of {of_what} in a list", body
    if op == "count" and cond:
        body = (["count = 0", f"for {x} in {data}:", f"    if {cond}:", "        count += 1", "return count"] if loop
                else [f"return sum(1 for {x} in {data} if {cond})"])
        return f"count_{fname}", params, "int", f"counts the {fphrase} in a list", body
    if op == "any" and cond:
        name, word = rng.choice([("any", "any"), ("all", "all")])
        text = "checks whether all numbers are" if name == "all" else "checks whether a list has any"
        rest = fphrase if name == "any" else f"{fphrase}"
        return f"{name}_{fname}", params, "bool", f"{text} {rest}", [f"return {word}({cond} for {x} in {data})"]
    body = (["result = []", f"for {x} in {data}:"] + guard + [f"{pad}result.append({expr})", "return result"] if loop
            else [f"return [{expr} for {x} in {data}{where}]"])
    if not cond and not mname:
        return f"copy_{data}", params, "list[int]", "returns a copy of a list", [f"return list({data})"]
    return f"get_{core}", params, "list[int]", f"returns {of_what} in a list", body


def reduce_words(rng):
    data, x = rng.choice(WORD_LISTS), rng.choice(["word", "name", "item", "w"])
    fname, fphrase, cond, extra = rng.choice(WORD_FILTERS + [("", "words", "", None)] * 2)
    mname, mphrase, expr, kind = rng.choice(WORD_MAPS + WORD_MAPS[:1] * 2)
    cond, expr = cond.format(x=x), expr.format(x=x)
    params = [(data, "list[str]")] + ([extra] if extra else [])
    where = f" if {cond}" if cond else ""
    of_what = f"the {mphrase} of the {fphrase}" if mphrase else f"the {fphrase}"
    core = "_".join(part for part in [mname, "of" if mname and fname else "", fname] if part)
    op = rng.choice(["list", "list", "count", "longest", "join", "lengths"])
    if op == "count" and cond:
        return f"count_{fname}_words", params, "int", f"counts the {fphrase} in a list", [f"return sum(1 for {x} in {data} if {cond})"]
    if op == "longest":
        word, call = rng.choice([("longest", "max"), ("shortest", "min")])
        if cond:
            return (f"{word}_of_{fname}_words", params, "str", f"returns the {word} of the {fphrase} in a list",
                    [f"return {call}(({x} for {x} in {data} if {cond}), key=len)"])
        return f"{word}_word", params, "str", f"returns the {word} word in a list", [f"return {call}({data}, key=len)"]
    if op == "join" and kind == "str":
        sep, sep_name = rng.choice([(", ", "commas"), (" ", "spaces"), ("-", "dashes"), ("\\n", "newlines")])
        inner = f"{expr} for {x} in {data}{where}" if cond or mname else data
        parts = "_".join(part for part in ["join", mname, fname, "with", sep_name] if part)
        return parts, params, "str", f"joins {of_what} in a list with {sep_name}", [f"return \"{sep}\".join({inner})"]
    if op == "lengths" and cond:
        return (f"total_length_of_{fname}", params, "int", f"returns the total length of the {fphrase} in a list",
                ["total = 0", f"for {x} in {data}:", f"    if {cond}:", f"        total += len({x})", "return total"])
    if not cond and not mname:
        return f"sort_{data}", params, "list[str]", "returns the words of a list in alphabetical order", [f"return sorted({data})"]
    body = ([f"return [{expr} for {x} in {data}{where}]"] if rng.random() < 0.6 else
            ["result = []", f"for {x} in {data}:"] + ([f"    if {cond}:", f"        result.append({expr})"] if cond else
                                                      [f"    result.append({expr})"]) + ["return result"])
    return f"get_{core}", params, f"list[{kind}]", f"returns {of_what} in a list", body


def text_chars(rng):
    data, x = rng.choice(TEXTS), rng.choice(["c", "char", "letter"])
    name, phrase, cond = rng.choice(CHAR_FILTERS)
    cond = cond.format(x=x)
    op = rng.choice(["count", "remove", "keep", "has", "first", "only"])
    params = [(data, "str")]
    if op == "count":
        body = ([f"return sum(1 for {x} in {data} if {cond})"] if rng.random() < 0.5 else
                ["count = 0", f"for {x} in {data}:", f"    if {cond}:", "        count += 1", "return count"])
        return f"count_{name}", params, "int", f"counts the {phrase} in a string", body
    if op in ("remove", "keep"):
        test = f"not ({cond})" if op == "remove" else cond
        if op == "remove" and " == " in cond:
            test = cond.replace(" == ", " != ")
        elif op == "remove" and " in " in cond and " and " not in cond:
            test = cond.replace(" in ", " not in ")
        elif op == "remove" and " and " not in cond:
            test = f"not {cond}"
        task = f"removes the {phrase} from a string" if op == "remove" else f"keeps only the {phrase} of a string"
        return f"{op}_{name}", params, "str", task, [f"return \"\".join({x} for {x} in {data} if {test})"]
    if op == "has":
        return f"has_{name}", params, "bool", f"checks whether a string has any {phrase}", [f"return any({cond} for {x} in {data})"]
    if op == "only":
        return f"only_{name}", params, "bool", f"checks whether a string has only {phrase}", [f"return all({cond} for {x} in {data})"]
    return (f"first_of_{name}", params, "int", f"finds the first of the {phrase} in a string",
            [f"for i, {x} in enumerate({data}):", f"    if {cond}:", "        return i", "return -1"])


def convert(rng):
    source, target, expr = rng.choice(CONVERSIONS)
    x = rng.choice([source, "value", source[0]])
    expr = expr.format(x=x)
    body = [f"return {expr}"] if rng.random() < 0.6 else [f"{target} = {expr}", f"return {target}"]
    return f"{source}_to_{target}", [(x, "float")], "float", f"converts {source} to {target}", body


def geometry(rng):
    what, shape, params, expr = rng.choice(SHAPES)
    name = rng.choice([f"{shape}_{what}", f"{what}_of_{shape}"])
    body = [f"return {expr}"] if rng.random() < 0.7 else [f"{what} = {expr}", f"return {what}"]
    return name, [(p, "float") for p in params], "float", f"returns the {what} of a {shape}", body


def returns_of(expr):
    return "bool" if any(op in expr for op in (" == ", " > 0", " < 0", " and ")) and " if " not in expr else "float"


def binary(rng):
    names, task, expr = rng.choice(BINARY)
    a, b = rng.choice(PAIRS)
    return rng.choice(names), [(a, "float"), (b, "float")], returns_of(expr), task, [f"return {expr.format(a=a, b=b)}"]


def unary(rng):
    names, task, expr = rng.choice(UNARY)
    x = "year" if "year" in task else rng.choice(["n", "x", "number", "value"])
    return rng.choice(names), [(x, "int")], returns_of(expr), task, [f"return {expr.format(x=x)}"]


# Functions with a body of their own: (names, parameters, returns, task, bodies); {d} is a list, {t} a text, {n} a number.
FIXED = [
    (["factorial"], [("{n}", "int")], "int", "returns the factorial of a number",
     [["result = 1", "for i in range(2, {n} + 1):", "    result *= i", "return result"],
      ["if {n} <= 1:", "    return 1", "return {n} * factorial({n} - 1)"]]),
    (["fibonacci"], [("{n}", "int")], "int", "returns the n-th Fibonacci number",
     [["a, b = 0, 1", "for _ in range({n}):", "    a, b = b, a + b", "return a"],
      ["if {n} < 2:", "    return {n}", "return fibonacci({n} - 1) + fibonacci({n} - 2)"]]),
    (["is_prime"], [("{n}", "int")], "bool", "checks whether a number is prime",
     [["if {n} < 2:", "    return False", "for i in range(2, int({n} ** 0.5) + 1):", "    if {n} % i == 0:", "        return False",
       "return True"], ["return {n} > 1 and all({n} % i for i in range(2, {n}))"]]),
    (["gcd"], [("a", "int"), ("b", "int")], "int", "returns the greatest common divisor of two numbers",
     [["while b:", "    a, b = b, a % b", "return a"], ["if b == 0:", "    return a", "return gcd(b, a % b)"]]),
    (["digit_sum", "sum_of_digits"], [("{n}", "int")], "int", "returns the sum of the digits of a number",
     [["return sum(int(d) for d in str({n}))"], ["total = 0", "while {n} > 0:", "    total += {n} % 10", "    {n} //= 10", "return total"]]),
    (["count_digits"], [("{n}", "int")], "int", "counts the digits of a number", [["return len(str({n}))"]]),
    (["divisors", "get_divisors"], [("{n}", "int")], "list[int]", "returns the divisors of a number",
     [["return [i for i in range(1, {n} + 1) if {n} % i == 0]"]]),
    (["primes_up_to"], [("{n}", "int")], "list[int]", "returns the prime numbers up to a number",
     [["primes = []", "for i in range(2, {n} + 1):", "    if all(i % p for p in primes):", "        primes.append(i)", "return primes"]]),
    (["reverse_string", "reverse_text"], [("{t}", "str")], "str", "reverses a string",
     [["return {t}[::-1]"], ["result = \"\"", "for c in {t}:", "    result = c + result", "return result"]]),
    (["is_palindrome"], [("{t}", "str")], "bool", "checks whether a string is a palindrome",
     [["return {t} == {t}[::-1]"], ["{t} = {t}.lower()", "return {t} == {t}[::-1]"]]),
    (["count_words", "word_count"], [("{t}", "str")], "int", "counts the words in a string", [["return len({t}.split())"]]),
    (["capitalize_words", "title_case"], [("{t}", "str")], "str", "capitalizes each word of a string",
     [["return \" \".join(word.capitalize() for word in {t}.split())"]]),
    (["letter_counts", "char_counts"], [("{t}", "str")], "dict[str, int]", "counts how often each letter occurs in a string",
     [["counts = {{}}", "for c in {t}:", "    counts[c] = counts.get(c, 0) + 1", "return counts"]]),
    (["is_anagram"], [("a", "str"), ("b", "str")], "bool", "checks whether two strings are anagrams", [["return sorted(a) == sorted(b)"]]),
    (["mean", "average_of"], [("{d}", "list[float]")], "float", "returns the mean of a list",
     [["return sum({d}) / len({d})"], ["if not {d}:", "    return 0", "return sum({d}) / len({d})"]]),
    (["median"], [("{d}", "list[float]")], "float", "returns the median of a list",
     [["ordered = sorted({d})", "middle = len(ordered) // 2", "if len(ordered) % 2 == 1:", "    return ordered[middle]",
       "return (ordered[middle - 1] + ordered[middle]) / 2"]]),
    (["remove_duplicates", "unique"], [("{d}", "list")], "list", "removes the duplicates from a list",
     [["return list(set({d}))"], ["result = []", "for item in {d}:", "    if item not in result:", "        result.append(item)", "return result"]]),
    (["reverse_list"], [("{d}", "list")], "list", "reverses a list", [["return {d}[::-1]"], ["return list(reversed({d}))"]]),
    (["flatten"], [("lists", "list[list]")], "list", "flattens a list of lists", [["return [item for inner in lists for item in inner]"]]),
    (["is_sorted"], [("{d}", "list")], "bool", "checks whether a list is sorted",
     [["return all(a <= b for a, b in zip({d}, {d}[1:]))"], ["return {d} == sorted({d})"]]),
    (["running_total", "prefix_sums"], [("{d}", "list[int]")], "list[int]", "returns the running totals of a list",
     [["total = 0", "result = []", "for value in {d}:", "    total += value", "    result.append(total)", "return result"]]),
    (["chunks", "split_into_chunks"], [("{d}", "list"), ("size", "int")], "list[list]", "splits a list into chunks of a given size",
     [["return [{d}[i:i + size] for i in range(0, len({d}), size)]"]]),
    (["index_of", "linear_search"], [("{d}", "list"), ("target", "int")], "int", "finds the position of a value in a list",
     [["for i, item in enumerate({d}):", "    if item == target:", "        return i", "return -1"]]),
    (["binary_search"], [("{d}", "list[int]"), ("target", "int")], "int", "finds a value in a sorted list by binary search",
     [["low, high = 0, len({d}) - 1", "while low <= high:", "    middle = (low + high) // 2", "    if {d}[middle] == target:",
       "        return middle", "    if {d}[middle] < target:", "        low = middle + 1", "    else:", "        high = middle - 1", "return -1"]]),
    (["bubble_sort"], [("{d}", "list[int]")], "list[int]", "sorts a list by bubble sort",
     [["for i in range(len({d})):", "    for j in range(len({d}) - 1 - i):", "        if {d}[j] > {d}[j + 1]:",
       "            {d}[j], {d}[j + 1] = {d}[j + 1], {d}[j]", "return {d}"]]),
    (["quick_sort"], [("{d}", "list[int]")], "list[int]", "sorts a list by quick sort",
     [["if len({d}) <= 1:", "    return {d}", "pivot = {d}[0]", "left = [x for x in {d}[1:] if x < pivot]",
       "right = [x for x in {d}[1:] if x >= pivot]", "return quick_sort(left) + [pivot] + quick_sort(right)"]]),
    (["second_largest"], [("{d}", "list[int]")], "int", "returns the second largest number in a list", [["return sorted(set({d}))[-2]"]]),
    (["clamp"], [("{n}", "float"), ("low", "float"), ("high", "float")], "float", "limits a number to a range",
     [["return max(low, min({n}, high))"], ["if {n} < low:", "    return low", "if {n} > high:", "    return high", "return {n}"]]),
    (["dot_product"], [("a", "list[float]"), ("b", "list[float]")], "float", "returns the dot product of two lists",
     [["return sum(x * y for x, y in zip(a, b))"]]),
    (["invert_dict"], [("d", "dict")], "dict", "swaps the keys and values of a dictionary",
     [["return {{value: key for key, value in d.items()}}"]]),
    (["group_by_length"], [("words", "list[str]")], "dict[int, list[str]]", "groups words by their length",
     [["groups = {{}}", "for word in words:", "    groups.setdefault(len(word), []).append(word)", "return groups"]]),
    (["fizz_buzz"], [("{n}", "int")], "str", "returns Fizz, Buzz, FizzBuzz or the number",
     [["if {n} % 15 == 0:", "    return \"FizzBuzz\"", "if {n} % 3 == 0:", "    return \"Fizz\"", "if {n} % 5 == 0:", "    return \"Buzz\"",
       "return str({n})"]]),
    (["to_binary"], [("{n}", "int")], "str", "converts a number to binary",
     [["if {n} == 0:", "    return \"0\"", "digits = \"\"", "while {n} > 0:", "    digits = str({n} % 2) + digits", "    {n} //= 2", "return digits"]]),
    (["common_items", "intersection"], [("a", "list"), ("b", "list")], "list", "returns the items that two lists share",
     [["return [item for item in a if item in b]"]]),
    (["count_item", "count_occurrences"], [("{d}", "list"), ("target", "int")], "int", "counts how often a value occurs in a list",
     [["return {d}.count(target)"], ["return sum(1 for item in {d} if item == target)"]]),
    (["greet"], [("name", "str")], "str", "greets a person by name", [["return f\"Hello, {{name}}!\""], ["return \"Hello, \" + name + \"!\""]]),
    (["sum_list", "total"], [("{d}", "list[int]")], "int", "returns the sum of a list",
     [["return sum({d})"], ["result = 0", "for value in {d}:", "    result += value", "return result"]]),
]


def fixed(rng):
    names, params, returns, task, bodies = rng.choice(FIXED)
    slots = {"n": rng.choice(["n", "number", "x"]), "t": rng.choice(TEXTS), "d": rng.choice(NUMBER_LISTS)}
    name = rng.choice(names)
    return (name, [(p.format_map(slots), kind) for p, kind in params], returns, task,
            [line.format_map(slots) for line in rng.choice(bodies)])


# name: (maker, weight)
FAMILIES = {"reduce_numbers": (reduce_numbers, 5), "reduce_words": (reduce_words, 4), "text_chars": (text_chars, 3),
            "convert": (convert, 1), "geometry": (geometry, 1), "binary": (binary, 2), "unary": (unary, 2), "fixed": (fixed, 6)}
