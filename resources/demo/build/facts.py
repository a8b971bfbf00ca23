"""Real facts of three subjects, as multiple-choice questions in the format of MMLU."""

import random
from dataclasses import dataclass

# name, symbol; the position is the atomic number.
ELEMENTS = """hydrogen H, helium He, lithium Li, beryllium Be, boron B, carbon C, nitrogen N, oxygen O, fluorine F, neon Ne,
sodium Na, magnesium Mg, aluminium Al, silicon Si, phosphorus P, sulfur S, chlorine Cl, argon Ar, potassium K, calcium Ca,
scandium Sc, titanium Ti, vanadium V, chromium Cr, manganese Mn, iron Fe, cobalt Co, nickel Ni, copper Cu, zinc Zn,
gallium Ga, germanium Ge, arsenic As, selenium Se, bromine Br, krypton Kr, rubidium Rb, strontium Sr, yttrium Y,
zirconium Zr, niobium Nb, molybdenum Mo, technetium Tc, ruthenium Ru, rhodium Rh, palladium Pd, silver Ag, cadmium Cd,
indium In, tin Sn, antimony Sb, tellurium Te, iodine I, xenon Xe, caesium Cs, barium Ba"""

WORKS = {
    "Plato": ["Republic", "Symposium", "Phaedo", "Timaeus"],
    "Aristotle": ["Nicomachean Ethics", "Metaphysics", "Poetics", "Politics"],
    "Immanuel Kant": ["Critique of Pure Reason", "Critique of Judgment", "Groundwork of the Metaphysics of Morals"],
    "David Hume": ["A Treatise of Human Nature", "Dialogues Concerning Natural Religion"],
    "John Locke": ["Two Treatises of Government", "An Essay Concerning Human Understanding"],
    "Thomas Hobbes": ["Leviathan", "De Cive"],
    "Baruch Spinoza": ["Ethics", "Theological-Political Treatise"],
    "René Descartes": ["Meditations on First Philosophy", "Discourse on the Method"],
    "Gottfried Wilhelm Leibniz": ["Monadology", "Theodicy"],
    "Friedrich Nietzsche": ["Thus Spoke Zarathustra", "Beyond Good and Evil", "The Gay Science"],
    "Georg Wilhelm Friedrich Hegel": ["Phenomenology of Spirit", "Science of Logic"],
    "Arthur Schopenhauer": ["The World as Will and Representation"],
    "Søren Kierkegaard": ["Fear and Trembling", "Either/Or", "The Sickness Unto Death"],
    "Jean-Jacques Rousseau": ["The Social Contract", "Emile"],
    "Voltaire": ["Candide"],
    "John Stuart Mill": ["On Liberty", "Utilitarianism"],
    "Karl Marx": ["Capital"],
    "Jean-Paul Sartre": ["Being and Nothingness", "Nausea"],
    "Simone de Beauvoir": ["The Second Sex", "The Ethics of Ambiguity"],
    "Albert Camus": ["The Myth of Sisyphus", "The Rebel"],
    "Martin Heidegger": ["Being and Time"],
    "Ludwig Wittgenstein": ["Tractatus Logico-Philosophicus", "Philosophical Investigations"],
    "Hannah Arendt": ["The Human Condition", "The Origins of Totalitarianism"],
    "John Rawls": ["A Theory of Justice", "Political Liberalism"],
    "Michel Foucault": ["Discipline and Punish", "The Order of Things"],
    "Niccolò Machiavelli": ["The Prince"],
    "Boethius": ["The Consolation of Philosophy"],
    "Augustine of Hippo": ["Confessions", "The City of God"],
    "Thomas Aquinas": ["Summa Theologica"],
    "Marcus Aurelius": ["Meditations"],
    "Lucretius": ["On the Nature of Things"],
    "Thomas More": ["Utopia"],
    "Francis Bacon": ["Novum Organum"],
    "Blaise Pascal": ["Pensées"],
    "Karl Popper": ["The Logic of Scientific Discovery"],
    "Thomas Kuhn": ["The Structure of Scientific Revolutions"],
}

# country: capital, currency
COUNTRIES = """Japan: Tokyo, yen; India: New Delhi, rupee; China: Beijing, renminbi; Thailand: Bangkok, baht;
Vietnam: Hanoi, dong; South Korea: Seoul, won; Mongolia: Ulaanbaatar, tugrik; Malaysia: Kuala Lumpur, ringgit;
Indonesia: Jakarta, rupiah; Bangladesh: Dhaka, taka; Nepal: Kathmandu, rupee;
Turkey: Ankara, lira; Iran: Tehran, rial; Saudi Arabia: Riyadh, riyal; Georgia: Tbilisi, lari; Armenia: Yerevan, dram;
Kazakhstan: Astana, tenge; Russia: Moscow, rouble; Ukraine: Kyiv, hryvnia; Poland: Warsaw, zloty; Czechia: Prague, koruna;
Hungary: Budapest, forint; Romania: Bucharest, leu; Sweden: Stockholm, krona; Norway: Oslo, krone; Denmark: Copenhagen, krone;
Iceland: Reykjavik, krona; Switzerland: Bern, franc; United Kingdom: London, pound; Ireland: Dublin, euro;
France: Paris, euro; Spain: Madrid, euro; Portugal: Lisbon, euro; Italy: Rome, euro; Germany: Berlin, euro;
Austria: Vienna, euro; Greece: Athens, euro; Finland: Helsinki, euro; Albania: Tirana, lek; Serbia: Belgrade, dinar;
Egypt: Cairo, pound; Morocco: Rabat, dirham; Algeria: Algiers, dinar; Tunisia: Tunis, dinar; Nigeria: Abuja, naira;
Ghana: Accra, cedi; Kenya: Nairobi, shilling; Ethiopia: Addis Ababa, birr; Namibia: Windhoek, dollar;
Zambia: Lusaka, kwacha; Angola: Luanda, kwanza; Mozambique: Maputo, metical; Brazil: Brasília, real;
Argentina: Buenos Aires, peso; Chile: Santiago, peso; Uruguay: Montevideo, peso; Peru: Lima, sol;
Paraguay: Asunción, guarani; Colombia: Bogotá, peso; Mexico: Mexico City, peso;
Guatemala: Guatemala City, quetzal; Honduras: Tegucigalpa, lempira; Costa Rica: San José, colón; Panama: Panama City, balboa;
Canada: Ottawa, dollar; Australia: Canberra, dollar; New Zealand: Wellington, dollar; Cuba: Havana, peso"""

SUBJECTS = {
    "chemical_elements": "stem",
    "philosophers_and_works": "humanities",
    "capitals_and_currencies": "social_sciences",
}


@dataclass(frozen=True)
class Fact:
    """A question with its answer and the pool that wrong answers are drawn from."""

    subject: str
    question: str
    answer: str
    pool: tuple[str, ...]


def facts() -> list[Fact]:
    found = []
    pairs = [e.split() for e in ELEMENTS.replace("\n", " ").split(", ")]
    names, symbols = (tuple(p[i] for p in pairs) for i in (0, 1))
    numbers = tuple(str(n) for n in range(1, len(pairs) + 1))
    for number, (name, symbol) in enumerate(pairs, 1):
        found.append(Fact("chemical_elements", f"What is the chemical symbol of {name}?", symbol, symbols))
        found.append(Fact("chemical_elements", f"Which element has the symbol {symbol}?", name, names))
        found.append(Fact("chemical_elements", f"What is the atomic number of {name}?", str(number), numbers))
    works = [(author, work) for author, titles in WORKS.items() for work in titles]
    for author, work in works:
        found.append(Fact("philosophers_and_works", f'Who wrote "{work}"?', author, tuple(WORKS)))
    for author, titles in WORKS.items():
        others = tuple(w for a, w in works if a != author)
        found.append(Fact("philosophers_and_works", f"Which of these works is by {author}?", titles[0], others))
    rows = [r.strip() for r in COUNTRIES.replace("\n", " ").split(";")]
    countries = [(r.split(": ")[0], *r.split(": ")[1].split(", ")) for r in rows]
    capitals, currencies = tuple(c[1] for c in countries), tuple(sorted({c[2] for c in countries}))
    for country, capital, currency in countries:
        subject = "capitals_and_currencies"
        found.append(Fact(subject, f"What is the capital of {country}?", capital, capitals))
        found.append(Fact(subject, f"What is the currency of {country}?", currency, currencies))
        found.append(
            Fact(subject, f"Which country has the capital {capital}?", country, tuple(c[0] for c in countries))
        )
    return found


def options(rng: random.Random, fact: Fact) -> tuple[list[str], str]:
    """Return four choices in random order and the letter of the right one."""
    wrong = rng.sample([w for w in fact.pool if w != fact.answer], 3)
    choices = [*wrong, fact.answer]
    rng.shuffle(choices)
    return choices, "ABCD"[choices.index(fact.answer)]
