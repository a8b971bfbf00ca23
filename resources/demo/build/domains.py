"""The databases of the demo, written by hand: one line a table, `table(column:values, ...)`.

Values are a range of whole numbers (`1970-2023`), a list (`[Drama|Comedy]`), or the name of a pool below; `other>` is
a foreign key to table `other`. Each table gets a primary key `<table>_id`.
"""

TRAIN = {
    "library": """author(name:person, country:country, birth_year:1900-1990)
        book(title:title, author>, genre:[Novel|Poetry|Essay|Drama|History], pages:80-900, year:1950-2023)
        loan(book>, member:person, days:1-60, branch:city)""",
    "hospital": """doctor(name:person, specialty:[Cardiology|Surgery|Oncology|Pediatrics|Neurology], salary:60-240, city:city)
        patient(name:person, doctor>, age:1-95, ward:[North|South|East|West])
        visit(patient>, reason:[Checkup|Fever|Injury|Vaccine], cost:20-900)""",
    "school": """teacher(name:person, subject:[Maths|Biology|History|Music|Physics], age:24-66)
        course(title:title, teacher>, credits:1-12, room:[Red Hall|Blue Hall|Attic|Lab])
        student(name:person, course>, grade:1-10, hometown:city)""",
    "airline": """airport(name:place, city:city, country:country, gates:4-90)
        plane(model:[Falcon|Heron|Swift|Condor|Osprey], seats:40-400, age:1-30)
        flight(airport>, plane>, distance:100-9000, price:40-1200)""",
    "restaurant_guide": """chef(name:person, country:country, experience:1-40)
        restaurant(name:place, chef>, cuisine:[Italian|Thai|Mexican|Indian|French], rating:1-10, city:city)
        dish(name:food, restaurant>, price:5-80, calories:100-1500)""",
    "football_league": """team(name:place, city:city, founded:1880-2000, budget:5-900)
        player(name:person, team>, position:[Goalkeeper|Defender|Midfielder|Forward], goals:0-60, age:17-40)
        fixture(team>, opponent:place, attendance:500-90000, season:2010-2023)""",
    "orchestra": """conductor(name:person, country:country, age:30-85)
        concert(title:title, conductor>, hall:place, year:1990-2023, audience:100-4000)
        musician(name:person, conductor>, instrument:[Violin|Cello|Flute|Oboe|Trumpet], salary:20-150)""",
    "car_market": """maker(name:place, country:country, founded:1890-2010)
        car(model:title, maker>, fuel:[Petrol|Diesel|Electric|Hybrid], horsepower:50-600, price:8-150)
        sale(car>, buyer:person, amount:5-160, city:city)""",
    "museum_tour": """museum(name:place, city:city, opened:1800-2015, staff:5-400)
        artwork(title:title, museum>, artist:person, style:[Cubism|Baroque|Realism|Surrealism], value:1-900)
        ticket(museum>, visitor:person, price:5-40, day:[Monday|Friday|Saturday|Sunday])""",
    "bank_accounts": """branch(name:place, city:city, assets:10-900, opened:1950-2020)
        customer(name:person, branch>, income:15-300, status:[Gold|Silver|Bronze|Basic])
        loan(customer>, amount:1-500, purpose:[House|Car|Study|Travel])""",
    "farm_products": """farm(name:place, region:[Valley|Coast|Hill|Plain|Delta], area:5-900, owner:person)
        crop(name:food, farm>, season:[Spring|Summer|Autumn|Winter], harvest:1-500)
        animal(name:pet, farm>, weight:2-900, age:1-20)""",
    "film_archive": """director(name:person, country:country, birth_year:1920-1990)
        movie(title:title, director>, genre:[Drama|Comedy|Horror|Western|Thriller], year:1960-2023, budget:1-250)
        award(movie>, category:[Best Picture|Best Script|Best Sound|Best Editing], year:1961-2024)""",
    "train_network": """station(name:place, city:city, platforms:1-30, opened:1850-2015)
        line(name:title, station>, length:5-900, color:color)
        driver(name:person, line>, age:22-65, shift:[Morning|Evening|Night])""",
    "book_club": """club(name:place, city:city, founded:1950-2022)
        member(name:person, club>, age:15-90, level:[Gold|Silver|Bronze|Basic])
        meeting(club>, topic:title, guests:2-90, year:2005-2023)""",
    "clinic_pets": """owner(name:person, city:city, age:18-90)
        pet(name:pet, owner>, species:[Dog|Cat|Rabbit|Parrot|Turtle], weight:1-60, age:1-20)
        treatment(pet>, kind:[Vaccine|Surgery|Dental|Bath], cost:10-700)""",
    "wine_cellar": """winery(name:place, country:country, founded:1700-2010)
        wine(name:title, winery>, grape:[Merlot|Syrah|Malbec|Riesling], price:5-400, score:70-100)
        shipment(wine>, client:person, bottles:1-120)""",
    "city_transport": """district(name:place, population:5000-900000, area:2-300)
        bus(model:[Falcon|Heron|Swift|Condor|Osprey], district>, seats:20-90, year:2000-2023)
        stop(name:title, district>, shelters:0-12, zone:[A1|B2|C3|D4])""",
    "software_team": """developer(name:person, language:[Python|Java|Rust|Go|Ruby], salary:30-220, country:country)
        project(title:title, developer>, budget:5-900, status:[Open|Closed|Paused|Planned])
        bug(project>, severity:[Low|Medium|High|Critical], hours:1-120)""",
    "hotel_chain": """hotel(name:place, city:city, stars:1-5, rooms:10-600)
        guest(name:person, hotel>, nights:1-30, country:country)
        payment(guest>, method:[Cash|Card|Voucher|Transfer], amount:40-3000)""",
    "music_label": """artist(name:person, country:country, age:18-80)
        album(title:title, artist>, genre:[Rock|Jazz|Folk|Soul|Techno], year:1970-2023, sales:1-900)
        song(title:title, album>, seconds:90-600, plays:1-9000)""",
    "election": """party(name:place, color:color, founded:1850-2018, members:100-90000)
        candidate(name:person, party>, age:21-85, region:[Valley|Coast|Hill|Plain|Delta])
        vote(candidate>, county:city, total:100-90000)""",
    "gym": """trainer(name:person, specialty:[Yoga|Boxing|Swimming|Cycling], salary:15-90)
        lesson(title:title, trainer>, level:[Beginner|Advanced|Expert], minutes:20-120)
        client(name:person, trainer>, age:16-80, city:city, fee:10-200)""",
    "space_agency": """agency(name:place, country:country, budget:10-900, founded:1950-2015)
        rocket(name:title, agency>, height:20-120, payload:1-150)
        launch(rocket>, site:city, year:1960-2023, result:[Success|Failure|Partial])""",
    "law_firm": """firm(name:place, city:city, partners:2-90)
        lawyer(name:person, firm>, field:[Tax|Family|Labor|Criminal], wins:0-200, age:25-75)
        trial(lawyer>, court:place, days:1-200, verdict:[Guilty|Innocent|Settled])""",
}

# Like Spider, a second training file from other sources.
OTHERS = {
    "geography": """country(name:place, continent:[Asia|Europe|Africa|America|Oceania], population:1-900, area:1-900)
        river(name:title, country>, length:50-6000)
        mountain(name:title, country>, height:800-8800, first_climb:1800-1990)""",
    "toy_store": """brand(name:place, country:country, founded:1900-2015)
        toy(name:title, brand>, material:[Wood|Plastic|Metal|Cloth], price:2-150, age:1-14)
        purchase(toy>, child:person, quantity:1-12)""",
}

DEV = {
    "theater": """playwright(name:person, country:country, birth_year:1850-1990)
        play(title:title, playwright>, style:[Tragedy|Comedy|Farce|Musical], acts:1-5, year:1900-2023)
        performance(play>, venue:place, audience:50-3000, price:5-150)""",
    "bakery": """baker(name:person, experience:1-40, city:city)
        cake(name:food, baker>, flavor:[Vanilla|Chocolate|Lemon|Carrot], price:4-90, weight:1-12)
        delivery(cake>, street:place, minutes:5-120, status:[Late|Early|Lost|Done])""",
    "zoo": """zone(name:place, area:1-90, climate:[Tropical|Polar|Desert|Forest])
        keeper(name:person, zone>, age:20-66, salary:15-80)
        creature(name:pet, zone>, diet:[Meat|Fish|Fruit|Grass], weight:1-5000, age:1-60)""",
    "shipping_company": """port(name:place, country:country, depth:5-30, docks:1-60)
        ship(name:title, port>, type:[Tanker|Ferry|Cargo|Cruise], tonnage:1-400, year:1970-2022)
        captain(name:person, ship>, age:30-70, rank:[First|Second|Third])""",
    "newspaper": """editor(name:person, city:city, age:25-75)
        article(title:title, editor>, section:[Sports|Politics|Culture|Science], words:100-4000, year:2000-2023)
        comment(article>, reader:person, likes:0-900, mood:[Happy|Angry|Neutral])""",
    "furniture_shop": """designer(name:person, country:country, age:22-80)
        chair(name:title, designer>, material:[Oak|Steel|Leather|Bamboo], price:20-900, stock:0-300)
        refund(chair>, reason:[Broken|Wrong|Late|Unwanted], amount:10-900)""",
    "climbing_club": """guide(name:person, country:country, experience:1-40)
        route(name:title, guide>, difficulty:[Easy|Moderate|Hard|Extreme], height:20-1500, year:1950-2022)
        climb(route>, climber:person, hours:1-30, weather:[Sunny|Windy|Rainy|Snowy])""",
    "observatory": """telescope(name:place, diameter:1-40, built:1900-2020, country:country)
        astronomer(name:person, telescope>, age:25-80, degree:[Master|Doctor|Professor])
        star(name:title, telescope>, magnitude:1-20, color:color, distance:4-9000)""",
}

POOLS = {
    "country": "Brazil Japan Kenya Norway Canada Peru Spain Egypt India Chile France Ghana".split(),
    "city": "Manaus Lisbon Oslo Cairo Lima Kyoto Porto Dakar Quito Turin Leeds Bergen".split(),
    "color": "Red Blue Green Yellow Black White Orange Purple".split(),
    "first": """Ana Bruno Carla Diego Elena Felix Gloria Hugo Irene Jonas Karen Luis Marta Nadia Oscar Paula Quinn Rosa
        Simon Tania Ursula Victor Wanda Xavier Yara Zeno""".split(),
    "last": """Abreu Braga Costa Duarte Esteves Farias Gomes Horta Ibarra Jardim Klein Lopes Matos Nunes Ortega Prado
        Quiroz Ramos Silva Torres Uchoa Vargas Weber Ximenes Yates Zago""".split(),
    "adjective": """Silent Golden Hidden Broken Distant Bright Frozen Gentle Crimson Ancient Lonely Velvet Burning Paper
        Secret Early""".split(),
    "thing": """River Garden Mirror Harbor Forest Lantern Bridge Island Shadow Window Meadow Compass Letter Winter
        Engine Castle""".split(),
    "landmark": """Hill Lake Park Square Gate Tower Field Bay Point Grove""".split(),
    "food": """Almond Ginger Cherry Pepper Honey Walnut Barley Mango Pumpkin Saffron Apricot Cocoa Maize Fennel Papaya
        Hazel Olive Sesame Guava Clove""".split(),
    "pet": """Biscuit Shadow Luna Max Coco Rex Bella Simba Nala Toby Daisy Rocky Milo Zara Oreo Kiwi Pepper Ruby Leo
        Misty""".split(),
}
